# Models from the flags: new ones by preset, those of weights, what does not go together.
import json
from dataclasses import asdict, replace

import pytest
import torch

from models.gsvar import GSVAR, PRESETS, adapter, loading
from models.gsvar.config import original_d24
from models.var.scales import ScaleSchedule
from tests.training.conftest import sizes
from training.gsvar import building
from training.gsvar.flags import Model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A whole model as the original's, its parts, and another tokenizer."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    model = GSVAR(sizes())
    content = adapter.to_original(model)
    torch.save(content, folder / "whole.pth")
    parts = content["trainer"]
    torch.save({"trainer": {**parts, "vae_local": {}}}, folder / "transformer.pth")
    torch.save({"trainer": {**parts, "var_wo_ddp": {}}}, folder / "vqvae.pth")
    other = adapter.to_original(GSVAR(sizes()))["trainer"]
    torch.save({"trainer": {**other, "var_wo_ddp": {}}}, folder / "other.pth")
    torch.save(adapter.to_original(GSVAR(sizes(depth=3))), folder / "deep.pth")
    loading.save(model, folder / "ours.safetensors")
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working directory without checkpoints of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def part(model, vqvae):
    return {n: t for n, t in model.state_dict().items() if n.startswith("vqvae.") is vqvae}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def loaded(file, **options):
    return loading.load(file, **options)


# sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_presets_by_name(name):
    assert building.read_config(Model(preset=name)) == PRESETS[name]()


def test_a_preset_of_a_file(preset):
    assert building.read_config(Model(preset=str(preset))) == sizes()


def test_flags_change_a_preset(preset):
    flags = Model(
        preset=str(preset), depth=5, pn="1_2_3_4x6", ref_attends="all", saln=True, anorm=False
    )
    assert building.read_config(flags) == sizes(
        depth=5, patch_nums="1_2_3_4x6", ref_attends="all", shared_adaln=True, qk_norm=False
    )


def test_schedules_by_the_original_s_names():
    """By the picture's side in pixels, 16 or 8 to a token."""
    assert ScaleSchedule.of(building.SCHEDULES["512"]).text == original_d24().patch_nums
    for name, text in building.SCHEDULES.items():
        config = building.read_config(Model(preset="original-d24", pn=name))
        assert config.patch_nums == text
        assert config.scales.latent == (int(name) // 16,) * 2


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"preset": "huge"}, "--preset=huge: choose original-d24, .*tiny, or a .json"),
        ({"preset": "none.json"}, "none.json: no such file"),
        ({"pn": "1_2_x"}, "--pn=1_2_x: .* is not a list such as"),
        ({"pn": "2_4"}, "--pn=2_4: patch_nums must begin with 1"),
        ({"pn": "1_4_2"}, "--pn=1_4_2: patch_nums must grow"),
        ({"depth": 0}, "--depth=0 must be at least 1"),
        ({"depth": -3}, "--depth=-3 must be at least 1"),
        ({"render_alpha": True}, "render_alpha wants warped_references"),
    ],
)
def test_sizes_that_make_no_model_are_refused(changes, why):
    with pytest.raises((ValueError, FileNotFoundError), match=why):
        building.read_config(replace(Model(preset="tiny"), **changes))


@pytest.mark.parametrize(
    "text",
    [
        *("", "[1, 2]", '"tiny"', "null", '{"depth": 2', '{"deppth": 2}', '{"heads": 7}'),
        *('{"heads": 0}', '{"depth": "2"}', '{"depth": 0}', '{"depth": 2.5}', '{"width": "64"}'),
        *('{"patch_nums": 5}', '{"refiner_width": -4}', '{"prefix_channels": null}'),
    ],
)
def test_a_file_that_tells_no_sizes_is_named(tmp_path, text):
    path = tmp_path / "sizes.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^--preset={path}: .+"):
        building.read_config(Model(preset=str(path)))


# new models ------------------------------------------------------------------------------------


def test_a_new_model_depends_on_the_seed_alone(preset):
    flags = Model(preset=str(preset))
    first = building.new_model(flags, 1).state_dict()
    torch.manual_seed(99)
    assert same(first, building.new_model(flags, 1).state_dict())
    assert not same(first, building.new_model(flags, 2).state_dict())


def test_a_new_model_is_drawn_as_the_flags_say(preset):
    plain = building.new_model(Model(preset=str(preset)), 1)
    assert plain.word.weight.std().item() == pytest.approx((1 / 64 / 3) ** 0.5, rel=0.1)
    model = building.new_model(Model(preset=str(preset), ini=0.5, hd=0.1, aln=0.01, alng=0.001), 1)
    C = model.config.width
    assert model.word.weight.std().item() == pytest.approx(0.5 * 0.8796, rel=0.1)
    ratio = model.head.weight.std() / model.word.weight.std()
    assert ratio.item() == pytest.approx(0.1, rel=0.1)
    modulation = model.transformer.blocks[0].adaln[1].weight
    assert (modulation[2 * C :].std() / model.word.weight.std()).item() == pytest.approx(
        0.01, rel=0.1
    )
    assert (modulation[: 2 * C].std() / model.word.weight.std()).item() == pytest.approx(
        0.001, rel=0.1
    )


def test_a_new_transformer_takes_the_tokenizer_it_is_given(preset, files):
    flags = Model(preset=str(preset), vae_model_path=files / "other.pth", depth=3)
    model = building.starting_model(flags, 4)
    assert same(
        part(model, True), part(loaded(files / "whole.pth", vqvae=files / "other.pth"), True)
    )
    assert same(part(model, False), part(building.new_model(flags, 4), False))
    assert model.config.depth == 3
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_new_transformer_needs_a_tokenizer(preset, files, elsewhere):
    flags = Model(preset=str(preset))
    with pytest.raises(
        FileNotFoundError, match=r"checkpoints/VQVAE.pth: .*VQVAE_train.py.*--vae_model"
    ):
        building.starting_model(flags, 0)
    (elsewhere / "checkpoints").mkdir()
    (elsewhere / "checkpoints" / "VQVAE.pth").write_bytes((files / "vqvae.pth").read_bytes())
    model = building.starting_model(flags, 0)
    assert same(part(model, True), part(loaded(files / "whole.pth"), True))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        building.starting_model(replace(flags, vae_model_path=elsewhere / "nowhere.pth"), 0)


def test_a_tokenizer_of_other_sizes_is_refused(tmp_path, files):
    path = tmp_path / "wide.json"
    path.write_text(json.dumps(asdict(sizes(vocabulary=64))))
    flags = Model(preset=str(path), vae_model_path=files / "vqvae.pth")
    with pytest.raises(ValueError, match=r"vqvae.pth does not fit: quantize.embedding"):
        building.starting_model(flags, 0)


# weights that are there ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["whole.pth", "ours.safetensors"])
def test_whole_weights_keep_their_own_tokenizer(files, name, elsewhere):
    (elsewhere / "checkpoints").mkdir()
    (elsewhere / "checkpoints" / "VQVAE.pth").write_bytes((files / "other.pth").read_bytes())
    model = building.starting_model(Model(var_pretrain_path=files / name), 0)
    assert same(model.state_dict(), loaded(files / "whole.pth").state_dict())
    flags = Model(var_pretrain_path=files / name, vae_model_path=files / "other.pth")
    other = building.starting_model(flags, 0)
    assert same(part(other, False), part(model, False))
    assert not same(part(other, True), part(model, True))


def test_a_transformer_alone_takes_the_shipped_tokenizer_if_it_is_there(files, elsewhere):
    flags = Model(var_pretrain_path=files / "transformer.pth")
    with pytest.raises(ValueError, match=r"transformer.pth holds no VQ-VAE.*--vae_model_path"):
        building.starting_model(flags, 0)
    (elsewhere / "checkpoints").mkdir()
    (elsewhere / "checkpoints" / "VQVAE.pth").write_bytes((files / "vqvae.pth").read_bytes())
    model = building.starting_model(flags, 0)
    assert same(part(model, True), part(loaded(files / "whole.pth"), True))
    other = building.starting_model(replace(flags, vae_model_path=files / "other.pth"), 0)
    assert not same(part(other, True), part(model, True))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"depth": 3}, "whole.pth has depth 2, not --depth=3"),
        (
            {"pn": "1_2_4_8"},
            "--pn=1_2_4_8 is not the schedule of .*whole.pth, which is 1_2_3_4_6_8",
        ),
        ({"pn": "512"}, "--pn=512 is not the schedule"),
        ({"pn": "8_1"}, "--pn=8_1: patch_nums must begin"),
        ({"saln": True}, "--saln=True, but .*whole.pth has False"),
        ({"anorm": False}, "--anorm=False, but .*whole.pth has True"),
        ({"fusion_block_idx": [7]}, r"none of the blocks \[7\]"),
        ({"var_pretrain_path": "none.pth"}, "none.pth: no such file; .*--preset"),
        ({"var_pretrain_path": "vqvae.pth"}, "holds a VQ-VAE and no transformer"),
    ],
)
def test_flags_that_are_not_the_weights_are_refused(files, changes, why):
    path = files / changes.pop("var_pretrain_path", "whole.pth")
    with pytest.raises((ValueError, FileNotFoundError), match=why):
        building.starting_model(Model(var_pretrain_path=path, **changes), 0)


def test_flags_that_are_the_weights_are_taken(files):
    flags = Model(
        var_pretrain_path=files / "whole.pth", depth=2, pn="1_2_3_4_6_8", saln=False, anorm=True
    )
    assert building.starting_model(flags, 0).config == sizes()
    flags = replace(flags, ref_attends="all", fusion_block_idx=[1, 30])
    model = building.starting_model(flags, 0)
    assert model.config == sizes(ref_attends="all", mixing_blocks=(1,))
    assert model.transformer.mixes == (False, True)


def test_weights_may_learn_to_read_alpha(tmp_path):
    torch.manual_seed(0)
    trained = GSVAR(sizes(warped_references=True))
    trained.vqvae.add_bridge()
    file = tmp_path / "guided.pth"
    torch.save(adapter.to_original(trained), file)
    model = building.starting_model(Model(var_pretrain_path=file, render_alpha=True), 0)
    assert model.config == sizes(warped_references=True, render_alpha=True)
    assert model.vqvae.bridge.reader.conv_in.in_channels == 7
    again = tmp_path / "again.pth"
    torch.save(adapter.to_original(model), again)
    assert loading.load(again).config == model.config
    assert building.starting_model(Model(var_pretrain_path=again), 0).config.render_alpha
    with pytest.raises(ValueError, match=r"--render_alpha=False, but .*again\.pth has True"):
        building.starting_model(Model(var_pretrain_path=again, render_alpha=False), 0)


def test_weights_may_get_a_level_at_full_resolution(tmp_path):
    torch.manual_seed(0)
    trained = GSVAR(sizes(warped_references=True, vqvae_patch=2))
    trained.vqvae.add_bridge()
    file = tmp_path / "guided.safetensors"
    loading.save(trained, file)
    model = building.starting_model(Model(var_pretrain_path=file, fine_width=16), 0)
    assert model.config == sizes(warped_references=True, vqvae_patch=2, fine_width=16)
    assert model.vqvae.bridge.fine.conv_in.out_channels == 16
    again = tmp_path / "again.pth"
    torch.save(adapter.to_original(model), again)
    assert building.starting_model(Model(var_pretrain_path=again), 0).config == model.config
    for width, why in ((32, "16 wide already"), (7, "must divide"), (-4, "must divide")):
        with pytest.raises(ValueError, match=rf"--fine_width={width} and .*again.pth: .*{why}"):
            building.starting_model(Model(var_pretrain_path=again, fine_width=width), 0)
    plain = tmp_path / "plain.safetensors"
    loading.save(GSVAR(sizes()), plain)
    with pytest.raises(ValueError, match="fine_width wants warped_references"):
        building.starting_model(Model(var_pretrain_path=plain, fine_width=16), 0)


# what is trained -------------------------------------------------------------------------------


def trainable(model):
    return {n for n, p in model.named_parameters() if p.requires_grad}


def test_stage_1_trains_all_but_the_tokenizer():
    model = GSVAR(sizes())
    model.vqvae.add_bridge(identity=True)
    model.requires_grad_(False)
    building.prepare_latent(model, Model(), None)
    names = {n for n, _ in model.named_parameters()}
    assert trainable(model) == {n for n in names if not n.startswith("vqvae.")}
    assert model.transformer.checkpointing is False


@pytest.mark.parametrize(
    ("depth", "asked", "on"),
    [(16, None, True), (15, None, False), (16, False, False), (2, True, True)],
)
def test_activations_are_recomputed_in_deep_models(depth, asked, on):
    model = loading.empty(sizes(depth=depth), bridge=False)
    building.prepare_latent(model, Model(), asked)
    assert model.transformer.checkpointing is on


def test_lora_trains_the_original_s_number_of_factors():
    model = loading.empty(original_d24(), bridge=False)
    building.prepare_latent(model, Model(use_lora=True), None)
    factors = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in factors) == 2_359_296


def test_factors_are_drawn_from_the_seed():
    def drawn(seed, before):
        model = GSVAR(sizes())
        torch.manual_seed(before)
        building.prepare_latent(model, Model(use_lora=True), None, seed)
        return adapter.lora_tensors(model)

    assert same(drawn(1, 5), drawn(1, 6))
    assert not same(drawn(1, 5), drawn(2, 5))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lora_dropout": 0.1}, "--lora_dropout is not supported"),
        ({"use_lora": True, "lora_r": 0}, "--lora_r=0"),
        ({"use_lora": True, "lora_target_modules": "qx"}, "--lora_target_modules='qx'"),
    ],
)
def test_lora_flags_that_make_no_sense_are_refused(changes, why):
    with pytest.raises(ValueError, match=why):
        building.prepare_latent(loading.empty(sizes(), bridge=False), Model(**changes), None)


def test_flags_of_sizes_are_told_from_those_of_training():
    names = building.sizes_flags(Model())
    assert {"preset", "depth", "pn", "ref_attends", "lora_r", "use_lora", "saln"} <= set(names)
    assert not {"var_pretrain_path", "ini", "alng", "vae_model_path"} & set(names)
