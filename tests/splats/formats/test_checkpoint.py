import pickle

import pytest
import torch

import splats as package
from splats.formats import checkpoint, ply
from splats.gaussians import NAMES, Splats


def some_splats(count: int = 5, degree: int = 3) -> Splats:
    g = torch.Generator().manual_seed(count)
    K = (degree + 1) ** 2 - 1
    shapes = ((count, 3), (count, 3), (count, 4), (count,), (count, 1, 3), (count, K, 3))
    return Splats(*(torch.randn(shape, generator=g) for shape in shapes))


def same(a: Splats, b: Splats) -> bool:
    return all(torch.equal(a[name], b[name]) for name in NAMES)


def raw(splats: Splats) -> dict:
    return {name: splats[name].detach().clone() for name in NAMES}


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip_is_exact(tmp_path, degree):
    splats = some_splats(degree=degree)
    checkpoint.write(tmp_path / "a.pt", splats, 29_999, optimizer={"lr": 0.1})
    back, step = checkpoint.read(tmp_path / "a.pt")
    assert same(splats, back)
    assert step == 29_999
    assert checkpoint.load(tmp_path / "a.pt")["optimizer"] == {"lr": 0.1}


def test_reads_what_gsplats_trainer_saves(tmp_path):
    splats = some_splats()  # the trainer saves the state_dict of a ParameterDict
    content = {"step": 6999, "splats": splats.state_dict(), "pose_adjust": {"w": torch.zeros(2)}}
    torch.save(content, tmp_path / "a.pt")
    back, step = checkpoint.read(tmp_path / "a.pt")
    assert same(splats, back)
    assert step == 6999


def test_is_what_gsplats_trainer_reads(tmp_path):
    splats = some_splats()
    checkpoint.write(tmp_path / "a.pt", splats, 1)
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert content["splats"].keys() == set(NAMES)
    assert all(not value.requires_grad for value in content["splats"].values())


def test_a_view_is_saved_alone(tmp_path):
    many = some_splats(1000)
    few = Splats(**{name: many[name].detach()[:3] for name in NAMES})
    checkpoint.write(tmp_path / "a.pt", few, 1)
    assert (tmp_path / "a.pt").stat().st_size < 10_000


def test_older_and_extra_keys_are_tolerated(tmp_path):
    splats = some_splats()
    values = raw(splats)
    values["opacities"] = values["opacities"][:, None]
    values["features"] = torch.zeros(5, 32)
    torch.save({"splats": values}, tmp_path / "a.pt")
    back, step = checkpoint.read(tmp_path / "a.pt")
    assert same(splats, back)
    assert step == 0


class Code:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("as_zip", [True, False])
def test_code_is_refused_and_does_not_run(tmp_path, capsys, protocol, as_zip):
    content = {"step": 1, "splats": {**raw(some_splats()), "means": Code()}}
    if as_zip:
        torch.save(content, tmp_path / "a.pt", pickle_protocol=protocol)
    else:
        (tmp_path / "a.pt").write_bytes(pickle.dumps(Code(), protocol=protocol))
    with pytest.raises(ValueError, match=r"a\.pt contains code, not only tensors; refused"):
        checkpoint.read(tmp_path / "a.pt")
    assert capsys.readouterr().out == ""


def changed(**values) -> dict:
    return {"step": 1, "splats": {**raw(some_splats()), **values}}


BAD = {
    "list": ([1, 2], "not a checkpoint of splats"),
    "no splats": ({"model": {}}, "not a checkpoint of splats"),
    "no means": ({"splats": {"scales": torch.zeros(1)}}, "no means, quats"),
    "text": (changed(means="far away"), "means is not a tensor"),
    "integers": (changed(means=torch.zeros(5, 3, dtype=torch.long)), "means is not a tensor"),
    "strides": (changed(shN=torch.zeros(1).expand(5, 10**9, 3)), "shN is not a tensor"),
    "sparse": (changed(means=torch.zeros(5, 3).to_sparse()), "means is not a tensor"),
    "meta": (changed(means=torch.zeros(5, 3, device="meta")), "means is not a tensor"),
    "shape": (changed(means=torch.zeros(5, 2)), "means of shape"),
    "rows": (changed(means=torch.zeros(4, 3)), "scales of shape"),
    "scalar": (changed(means=torch.tensor(1.0)), "means is not a tensor"),
    "degree": (changed(shN=torch.zeros(5, 4, 3)), "4 coefficients"),
    "nan": (changed(scales=torch.full((5, 3), torch.nan)), "15 of 15 values of scales"),
    "step": ({**changed(), "step": "last"}, "'step' is 'last'"),
    "empty": (changed(means=torch.zeros(0, 3)), "no Gaussians"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_content_is_named_in_one_sentence(tmp_path, name):
    content, expected = BAD[name]
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=expected) as error:
        checkpoint.read(tmp_path / "a.pt")
    assert str(tmp_path / "a.pt") in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_files(tmp_path):
    checkpoint.write(tmp_path / "a.pt", some_splats(), 1)
    content = (tmp_path / "a.pt").read_bytes()
    for length in (0, 1, 10, len(content) // 2, len(content) - 1):
        (tmp_path / "b.pt").write_bytes(content[:length])
        with pytest.raises(ValueError, match="truncated or not a checkpoint"):
            checkpoint.read(tmp_path / "b.pt")
    with pytest.raises(OSError):
        checkpoint.read(tmp_path / "none.pt")


def test_load_and_save_choose_by_suffix(tmp_path):
    splats = some_splats(degree=1)
    for name in ("a.ply", "a.pt"):
        package.save(tmp_path / name, splats)
        assert same(package.load(tmp_path / name), splats)
    with pytest.raises(ValueError, match=r"a\.obj"):
        package.save(tmp_path / "a.obj", splats)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"a\.txt"):
        package.load(tmp_path / "a.txt")


def test_load_takes_the_newest_of_a_result_folder(tmp_path):
    for step, count in ((999, 4), (29_999, 6), (6_999, 5)):
        checkpoint.write(tmp_path / f"ckpts/ckpt_{step}_rank0.pt", some_splats(count), step)
    assert package.load(tmp_path).count == 6
    assert package.load(tmp_path / "ckpts").count == 6
    ply.write(tmp_path / "ply/point_cloud_29999.ply", some_splats(7))
    assert package.load(tmp_path).count == 6  # the checkpoint is the original
    ply.write(tmp_path / "ply/point_cloud_30000.ply", some_splats(8))
    assert package.load(tmp_path).count == 8


def test_load_joins_the_parts_of_several_gpus(tmp_path):
    parts = [some_splats(3), some_splats(4)]
    for rank, part in enumerate(parts):
        checkpoint.write(tmp_path / f"ckpts/ckpt_9_rank{rank}.pt", part, 9)
    joined = package.load(tmp_path)
    assert torch.equal(joined["means"], torch.cat([part["means"] for part in parts]))


def test_load_takes_an_inria_folder(tmp_path):
    for step, count in ((7000, 4), (30_000, 6)):
        ply.write(tmp_path / f"point_cloud/iteration_{step}/point_cloud.ply", some_splats(count))
    assert package.load(tmp_path).count == 6


def test_load_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        package.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no splats in"):
        package.load(tmp_path)


def test_bare_parameters_and_parameter_dicts_are_read(tmp_path):
    content = some_splats()
    torch.save(raw(content), tmp_path / "bare.pt")
    parameters = torch.nn.ParameterDict(raw(content))
    torch.save({"step": 7.0, "splats": parameters}, tmp_path / "dict.pt")
    for name, step in (("bare.pt", 0), ("dict.pt", 7)):
        back, at = checkpoint.read(tmp_path / name)
        assert same(back, content) and at == step


def test_2d_gaussians_are_thin_and_zero_quaternions_identities(tmp_path, caplog):
    values = raw(some_splats())
    values["scales"] = values["scales"][:, :2].clone()
    values["quats"][0] = 0
    torch.save({"step": 7, "splats": values}, tmp_path / "a.pt")
    with caplog.at_level("INFO"):
        back, _ = checkpoint.read(tmp_path / "a.pt")
    assert torch.allclose(back["scales"][:, 2].exp(), torch.tensor(1e-6))
    assert back["quats"][0].tolist() == [1, 0, 0, 0]
    assert "1 of 5 Gaussians have no rotation" in caplog.text and "2D Gaussians" in caplog.text


def test_what_other_models_lack_is_named(tmp_path):
    values = raw(some_splats())
    values["shN"] = torch.zeros(5, 24, 3)
    appearance = {name: values[name] for name in NAMES[:4]}
    appearance |= {"features": torch.zeros(5, 32), "colors": torch.zeros(5, 3)}
    for splats, message in ((values, "harmonics of degree 4"), (appearance, "train it without")):
        torch.save({"step": 7, "splats": splats}, tmp_path / "a.pt")
        with pytest.raises(ValueError, match=message):
            checkpoint.read(tmp_path / "a.pt")
