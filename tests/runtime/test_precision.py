# The precision that networks compute in, on processors with and without bfloat16 instructions.
import logging

import pytest
import torch

from runtime import precision
from runtime.precision import choose_dtype, multiplies_bf16, parse_dtype


@pytest.fixture(params=["avx512_bf16", "amx_bf16", None])
def processor(request, monkeypatch):
    """A processor with one kind of bfloat16 instructions, or with none."""
    has = {"avx2": True, "avx512_bf16": False, "amx_bf16": False, "cpu_name": "a name"}
    if request.param:
        has[request.param] = True
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    return request.param


def test_a_processor_says_what_it_multiplies(processor):
    assert multiplies_bf16("cpu") == (processor is not None)


def test_auto_is_the_fastest_precision(processor):
    expected = torch.float32 if processor is None else torch.bfloat16
    assert choose_dtype("auto", "cpu") == expected


def test_bf16_is_replaced_where_it_would_be_emulated_unless_forced(processor, caplog):
    with caplog.at_level(logging.WARNING):
        dtype = choose_dtype("bf16", "cpu")
    if processor is None:
        assert dtype == torch.float32 and "--force_bf16" in caplog.text
    else:
        assert dtype == torch.bfloat16 and not caplog.text
    assert choose_dtype("bf16", "cpu", force_bf16=True) == torch.bfloat16
    assert choose_dtype("float32", "cpu") == torch.float32
    assert choose_dtype(torch.float16, "cpu") == torch.float16


def test_an_older_torch_reads_the_processor_s_flags(monkeypatch, tmp_path):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(precision, "Path", lambda _: file)
    assert not multiplies_bf16("cpu")  # no such file: another system
    for flags, expected in (("fpu avx2 avx512f", False), ("fpu avx512_bf16 avx2", True)):
        file.write_text(f"flags : {flags}\n")
        assert multiplies_bf16("cpu") == expected


@pytest.mark.parametrize("name", ["bf16", "bfloat16"])
def test_names_of_precisions(name):
    assert parse_dtype(name) == parse_dtype(torch.bfloat16) == torch.bfloat16
    assert parse_dtype("fp16") == parse_dtype("float16") == torch.float16
    with pytest.raises(ValueError, match="not 'int8'"):
        parse_dtype("int8")
