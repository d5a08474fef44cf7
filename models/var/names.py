# The names that VAR's code, and all that is built on it, give to the tokenizer's and the
# transformer's tensors. Foreign names live here and in the systems' adapters only.
import re
from collections.abc import Callable, Collection, Iterable, Mapping

from torch import Tensor, nn

# ours -> theirs, first match of each rule in order; applied to whole names
VQVAE_RULES = [
    (r"^bridge\.levels\.(\d+)\.content\.", r"decoder.cond_layer.\1."),
    (r"^bridge\.levels\.(\d+)\.weight\.", r"decoder.weight_cond_layer.\1."),
    (r"^bridge\.pixels\.content\.", "decoder.pixel_cond_layer."),
    (r"^bridge\.pixels\.weight\.", "decoder.pixel_weight_cond_layer."),
    (r"^bridge\.blend\.conv_in\.", "decoder.blend_in_cond_layer."),
    (r"^bridge\.blend\.block\.", "decoder.blend_res_cond_layer."),
    (r"^bridge\.blend\.conv_mid\.", "decoder.blend_out_cond_layer.0."),
    (r"^bridge\.blend\.conv_out\.", "decoder.blend_out_cond_layer.2."),
    (r"^bridge\.reader\.", "decoder.reader_cond_layer."),  # ours alone
    (r"^bridge\.change\.", "decoder.change_cond_layer."),  # ours alone
    (r"^encoder\.levels\.(\d+)\.step\.", r"encoder.down.\1.downsample."),
    (r"^decoder\.levels\.(\d+)\.step\.", r"decoder.up.\1.upsample."),
    (r"^encoder\.levels\.", "encoder.down."),
    (r"^decoder\.levels\.", "decoder.up."),
    (r"\.blocks\.", ".block."),
    (r"\.attentions\.", ".attn."),
    (r"\.middle\.block(\d)\.", r".mid.block_\1."),
    (r"\.middle\.attention\.", ".mid.attn_1."),
    (r"(attn[_.]\d)\.proj\.", r"\1.proj_out."),
    (r"\.shortcut\.", ".nin_shortcut."),
    (r"^quantizer\.codebook\.", "quantize.embedding."),
    (r"^quantizer\.phis\.", "quantize.quant_resi.qresi_ls."),
]
TRANSFORMER_RULES = [
    (r"^scale_embedding\.", "lvl_embed."),
    (r"^word\.", "word_embed."),
    (r"^transformer\.shared_adaln\.", "shared_ada_lin."),
    (r"^transformer\.", ""),
    (r"\.attention\.qkv\.", ".attn.mat_qkv."),
    (r"\.attention\.log_temperature$", ".attn.scale_mul_1H11"),
    (r"\.attention\.", ".attn."),
    (r"^(blocks\.\d+)\.mlp\.0\.", r"\1.ffn.fc1."),
    (r"^(blocks\.\d+)\.mlp\.2\.", r"\1.ffn.fc2."),
    (r"^(blocks\.\d+)\.adaln\.", r"\1.ada_lin."),
    (r"^(blocks\.\d+)\.offset$", r"\1.ada_gss"),
]
BUFFERS = ("lvl_1L", "attn_bias_for_masking", "quantize.ema_vocab_hit_SV")  # follow from the sizes
ZERO_BUFFER = "zero_k_bias"


def is_buffer(name: str) -> bool:
    """Whether a tensor follows from the sizes and is not needed."""
    return name in BUFFERS or name.endswith(ZERO_BUFFER)


def count(names: Iterable[str], pattern: str) -> int:
    """How many numbers 0, 1, ... the pattern's group takes among the names."""
    matches = (re.match(pattern, name) for name in names)
    return 1 + max((int(m[1]) for m in matches if m), default=-1)


def read_vqvae_sizes(tensors: Mapping[str, Tensor]) -> dict:
    """VQVAEConfig's fields that a tokenizer's tensors tell. KeyError for a tensor that is
    missing."""
    width = tensors["encoder.conv_in.weight"].shape[0]
    levels = count(tensors, r"encoder\.down\.(\d+)\.")
    channels = [tensors[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)]
    vocabulary, latent = tensors["quantize.embedding.weight"].shape
    return {
        "width": width,
        "multipliers": tuple(c // width for c in channels),
        "res_blocks": count(tensors, r"encoder\.down\.0\.block\.(\d+)\."),
        "latent_channels": latent,
        "vocabulary": vocabulary,
    }


def rename_state(
    model: nn.Module,
    transformer: Mapping[str, Tensor],
    vqvae: Mapping[str, Tensor],
    foreign_name: Callable[[str], str],
    own: Collection[str] = (),
) -> tuple[dict[str, Tensor], list[str]]:
    """A file's tensors under our names and shapes, and the misfits: missing, unexpected, misshapen.

    own: the model's tensors that such files do not have."""
    left = {name: tensor for name, tensor in transformer.items() if not is_buffer(name)}
    left |= {"vqvae/" + name: tensor for name, tensor in vqvae.items() if not is_buffer(name)}
    misfits = [
        f"{name} is not zero"
        for name, tensor in transformer.items()
        if name.endswith(ZERO_BUFFER) and tensor.any()
    ]
    state = {}
    for name, mine in model.state_dict().items():
        if name in own:
            continue
        foreign = foreign_name(name)
        tensor = left.pop("vqvae/" + foreign if name.startswith("vqvae.") else foreign, None)
        if tensor is None:
            misfits.append(f"{foreign} is missing")
        elif tensor.squeeze().shape != mine.squeeze().shape:
            misfits.append(f"{foreign} is {list(tensor.shape)} instead of {list(mine.shape)}")
        else:
            state[name] = tensor.reshape(mine.shape)
    misfits += [f"{name.removeprefix('vqvae/')} is unexpected" for name in left]
    return state, misfits
