"""Registry of the architectures whose pickles are read: their options, derived from the weights.

To add one: a `PublishedKind` in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from pipeline.contract import UserError
from training.image_shape import ImageShape
from training.options.architectures import AnyDiscriminatorOptions, AnyGeneratorOptions
from training.pretrained import stylegan2_pickles as stylegan2
from training.pretrained import stylegan3_pickles as stylegan3
from training.pretrained.nvlabs import NvlabsPickle, Weights
from training.pretrained.pickles import PickledObject

Table = dict[str, Any]


@dataclass(frozen=True)
class PublishedKind:
    """How networks of one architecture are described.

    `title` names it; `preset` is the preset for training on from such a pickle. The functions get a
    pickled network and its weights and return keys of the options; they may raise anything.
    `is_generator` decides by the names of the weights. `discriminator_like` returns the keys of the
    discriminator for a file that has none. `adjustable` are the keys of both networks that may be
    given another value: weights fit and keep their meaning.
    """

    title: str
    preset: str
    is_generator: Callable[[Weights], bool]
    generator: Callable[[PickledObject, Weights], tuple[Table, ImageShape]]
    discriminator: Callable[[PickledObject, Weights], Table]
    discriminator_like: Callable[[Table], Table]
    adjustable: frozenset[str] = frozenset()


KINDS = (
    PublishedKind(
        "StyleGAN2",
        "stylegan2-ada",
        stylegan2.is_generator,
        stylegan2.describe_generator,
        stylegan2.describe_discriminator,
        stylegan2.discriminator_like,
        frozenset({"conv_clamp", "w_avg_beta", "mbstd_group_size"}),
    ),
    PublishedKind(
        "StyleGAN3",
        "stylegan3-r-512",
        stylegan3.is_generator,
        stylegan3.describe_generator,
        stylegan2.describe_discriminator,
        stylegan3.discriminator_like,
        frozenset({"conv_clamp", "w_avg_beta", "mbstd_group_size"}),
    ),
)


@dataclass(frozen=True)
class PublishedGenerator:
    """The generator of a pickle: its `kind`, the keys of the options that its weights determine
    (`table`), its complete `options`, and the shape of the images."""

    kind: PublishedKind
    table: Table
    options: AnyGeneratorOptions
    shape: ImageShape


def describe(published: NvlabsPickle) -> PublishedGenerator:
    """Describe the averaged generator of a pickle (else the trained one).

    Raises:
        UserError: it does not have the structure of a known architecture.
    """
    name = "G_ema" if "G_ema" in published.networks else "G"
    weights = published.weights(name)
    kind = next((one for one in KINDS if one.is_generator(weights)), None)
    if kind is None:
        raise UserError(
            f"{published.path}: {name} does not have the structure of a generator of "
            f"{' or '.join(one.title for one in KINDS)}"
        )
    try:
        table, shape = kind.generator(published.networks[name], weights)
        options = TypeAdapter(AnyGeneratorOptions).validate_python(table)
    except Exception:  # noqa: BLE001 (what a pickle holds may fail in any way)
        raise UserError(
            f"{published.path}: {name} does not have the structure of {kind.title}'s generator"
        ) from None
    return PublishedGenerator(kind, table, options, shape)


def describe_discriminator(published: NvlabsPickle, found: PublishedGenerator) -> Table:
    """Return the keys of the options of the discriminator that the weights determine, or those of
    the discriminator that was trained with the generator `found`, if the file has none.

    Raises:
        UserError: it does not have the structure of the architecture.
    """
    kind = found.kind
    if "D" not in published.networks:
        return kind.discriminator_like(found.table)
    try:
        table = kind.discriminator(published.networks["D"], published.weights("D"))
        TypeAdapter(AnyDiscriminatorOptions).validate_python(table)
    except Exception:  # noqa: BLE001 (as above)
        raise UserError(
            f"{published.path}: D does not have the structure of {kind.title}'s discriminator"
        ) from None
    return table
