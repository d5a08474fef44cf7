# Generators: posed reference photos and cameras in, images of those cameras out.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from generators.generator import Generated, Generator, References, Renderer
    from generators.render_then_fix import RenderThenFix

__all__ = ["Generated", "Generator", "References", "RenderThenFix", "Renderer"]

__getattr__ = exports(
    __path__,
    Generated="generators.generator",
    Generator="generators.generator",
    References="generators.generator",
    Renderer="generators.generator",
    RenderThenFix="generators.render_then_fix",
)
