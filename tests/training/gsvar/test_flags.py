# The original's flags, as its commands spell them.
import logging
import re
from dataclasses import fields
from pathlib import Path

import pytest

from fixers.testing.flags import parse_test
from training.gsvar.flags import TRAINING


def flags(*arguments):
    return parse_test(list(arguments), "test_tile.py", "about", ignored=TRAINING)


def test_booleans_as_people_write_them():
    for text, value in (("True", True), ("1", True), ("False", False), ("0", False), ("no", False)):
        assert flags(f"--use_ref={text}").data.use_ref is value
        assert flags("--use_ref", text).data.use_ref is value
    assert flags("--use_bridge").weights.use_bridge is True
    assert flags("--use_bridge", "--depth=3").weights.depth == 3


def test_training_flags_are_taken_and_said(caplog):
    caplog.set_level(logging.INFO)
    got = flags("--fuse=1", "--fusion_block_idx", "0", "1", "2", "--ini", "-1", "--depth", "16")
    assert got.weights.depth == 16
    assert got.weights.fusion_block_idx == [0, 1, 2]
    assert "--fuse, --ini" in caplog.text


def test_every_flag_of_the_original_is_taken():
    values = {"bool": "True", "int": "3", "float": "0.5", "str": "x"}
    values |= {"Literal[0,": "1", "Path": "x", 'Literal["adamw",': "adam"}
    for field in (field for group in TRAINING for field in fields(group)):
        kind = field.type.split(" ")[0]
        if kind in values and field.name not in ("json_path", "wandb_mode"):
            flags(f"--{field.name}={values[kind]}")
    got = flags(
        *("--json_path=a.json", "--vae_model_path=v", "--var_pretrain_path=p", "--var_test_path=t"),
        *("--testset_path=s", "--eval_img_num=7", "--gen_img=False", "--epoch=1", "--iter=2"),
        *("--use_ref=0", "--use_bridge=1", "--use_lora=False", "--batch_size=2", "--seed=3"),
        *("--depth=24", "--device=cpu", "--pn=512"),
    )
    assert got.results.eval_img_num == 7
    assert got.results.gen_img is False
    assert got.weights.vae_model_path == Path("v")
    assert flags("--limit=9").results.eval_img_num == 9


@pytest.mark.parametrize("wrong", ["--use_ref=maybe", "--depth=x", "--tblr=x", "--colour=blue"])
def test_wrong_values_exit_with_2_and_name_the_flag(wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        flags(wrong)
    assert stop.value.code == 2
    text = capsys.readouterr()
    assert wrong.split("=")[0].lstrip("-") in text.err + text.out


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("--use_reff=True", "no flag --use_reff; did you mean --use_ref?"),
        ("--wandb-flg", "did you mean --wandb_flag?"),
        ("--zzzzzz", "no flag --zzzzzz; see --help"),
        ("stray", "'stray' belongs to no flag"),
    ],
)
def test_unknown_flags_get_a_suggestion(wrong, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        flags(wrong)


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        flags("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for words in ("about", "weights options", "--metric_space {rgb,y}", "(default: rgb)"):
        assert words in text
