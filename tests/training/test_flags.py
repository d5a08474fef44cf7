# The original's flags, as its commands spell them.
import logging

import pytest

from training.flags import parse


def flags(*arguments):
    return parse(list(arguments), "test_tile.py", "about")


def test_booleans_as_people_write_them():
    for text, value in (("True", True), ("1", True), ("False", False), ("0", False), ("no", False)):
        assert flags(f"--use_ref={text}").use_ref is value
        assert flags("--use_ref", text).use_ref is value
    assert flags("--use_bridge").use_bridge is True
    assert flags("--use_bridge", "--depth=3").depth == 3


def test_training_flags_are_taken_and_said(caplog):
    caplog.set_level(logging.INFO)
    got = flags("--fuse=1", "--fusion_block_idx", "0", "1", "2", "--depth", "16", "--pn=1_2")
    assert got.depth == 16
    assert "--fuse, --fusion_block_idx, --pn" in caplog.text


@pytest.mark.parametrize("wrong", ["--use_reff=True", "--use_ref=maybe", "--depth=x", "stray"])
def test_unknown_flags_and_values_are_errors(wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        flags(wrong)
    assert stop.value.code == 2
    text = capsys.readouterr()
    assert wrong.split("=")[0].lstrip("-") in text.err + text.out


def test_a_near_miss_gets_a_suggestion(capsys):
    with pytest.raises(SystemExit):
        flags("--use_reff=True")
    text = capsys.readouterr()
    assert "--use_ref" in (text.err + text.out).replace("--use_reff", "")
