# CUDA graphs: without a GPU calls as they are; what would be captured asks nothing of the host.
import shutil

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fixers.graphs import Graphs
from models.gsvar.model import cached_rope, scale_of_tokens
from models.gsvar.restorer import Restorer

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SHAPES = [({}, None), ({"refiner": "ancestral"}, 2), ({"bridge": True, "refiner": "none"}, 1)]


class NothingFromTheHost(TorchDispatchMode):
    """Fails where a kernel takes a tensor from the host, or the host a number from the GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        seen = torch.utils._pytree.tree_leaves((args, kwargs, out))
        places = {x.device.type for x in seen if isinstance(x, torch.Tensor)}
        assert len(places) < 2, f"{func} with tensors on both"
        assert "cuda" not in places or func is not torch.ops.aten._local_scalar_dense.default
        return out


def pictures(*shape, seed=0):
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("attends", ["all", "self"])
@pytest.mark.parametrize(("options", "references"), SHAPES)
def test_on_a_cpu_graphs_change_nothing(fixer, attends, options, references):
    renders = pictures(3, 40, 70)
    guides = None if references is None else pictures(3, references, 40, 70, seed=1)
    sizes = {"ref_attends": attends}
    plain, graphs = (fixer(sizes, graphs=on, **options) for on in (False, True))
    assert torch.equal(plain.fix(renders, guides), graphs.fix(renders, guides))


@pytest.mark.parametrize("attends", ["all", "self"])
@pytest.mark.parametrize(("options", "references"), SHAPES)
def test_nothing_that_is_captured_waits_for_the_host(fixer, attends, options, references):
    """On tensors that have no content, as if on a GPU."""
    f = fixer({"ref_attends": attends}, **options)
    f.fix(
        pictures(2, 32, 32), None if references is None else pictures(2, references, 32, 32)
    )  # the host's own tables
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        f.model.to("cuda")
        f.restorer = Restorer(f.model)
        strict = []

        def run(name, work, *inputs):
            work(*inputs)  # tables and codes are made once, before anything is captured
            with NothingFromTheHost():
                outputs = work(*inputs)
            strict.append(name)
            return outputs

        f._run = run
        images = torch.empty(2, 3, 32, 32, device="cuda")
        guides = None
        if references is not None:
            guides = torch.empty(2, references, 3, 32, 32, device="cuda")
        seen = guides
        if references is not None and attends == "self":
            tensors = run("encode", lambda x: f.restorer.encode_references(x).tensors, guides)
            seen = f.memories.unpack(tensors, images)
        f_hat = f._restore(images, seen)
        decoded = f._decode(f_hat, images, guides, None)
    for table in (cached_rope, scale_of_tokens):  # theirs have no content either
        table.cache_clear()
    assert decoded.shape == images.shape
    assert len(strict) == 2 + (seen is not guides)


@gpu
@pytest.mark.parametrize("attends", ["all", "self"])
@pytest.mark.parametrize(("options", "references"), SHAPES)
def test_a_replayed_graph_is_the_call_itself(fixer, attends, options, references):
    sizes = {"ref_attends": attends}
    plain, graphs = (fixer(sizes, graphs=on, **options).to("cuda") for on in (False, True))
    for seed in range(3):
        renders = pictures(3, 40, 70, seed=seed).cuda()
        guides = None
        if references is not None:
            guides = pictures(3, references, 40, 70, seed=9 + seed).cuda()
        expected = plain.fix(renders, guides)
        torch.testing.assert_close(graphs.fix(renders, guides), expected, rtol=0, atol=1e-3)
    assert graphs.graphs._captured


@gpu
def test_few_graphs_are_captured():
    graphs = Graphs(most=2)
    for n in (1, 2, 3, 1):
        x = torch.rand(n, device="cuda")
        assert torch.equal(graphs("double", lambda x: (2 * x,), x)[0], 2 * x)
    assert len(graphs._captured) == 2


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_blocks_fix_the_same_and_are_compiled_once(fixer):
    renders, guides = pictures(2, 40, 70), pictures(2, 1, 40, 70, seed=1)
    sizes = {"ref_attends": "self"}
    plain, compiled = (fixer(sizes, compiled=on) for on in (False, True))
    expected = plain.fix(renders, guides)
    torch.testing.assert_close(compiled.fix(renders, guides), expected, rtol=0, atol=1e-4)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs > 0
    again = compiled.fix(renders.flip(0), guides.flip(0))
    torch.testing.assert_close(again, expected.flip(0), rtol=0, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_without_a_compiler_nothing_is_begun(fixer, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="C\\+\\+ compiler"):
        fixer(compiled=True)
