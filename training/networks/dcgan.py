"""DCGAN (Radford, Metz, Chintala 2016) for any size s·2^k: 28, 32, 64, 128, 256 px …

The smallest map is what remains when the height is halved as often as it stays at 4 or more: 4 for
the powers of two, 7 for 28. Non-square images keep their ratio in it.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.contract import UserError
from training.config import DcganDiscriminator, DcganGenerator
from training.networks.base import Discriminator, Generator, ImageShape, Verdict
from training.networks.layers import MinibatchStddev, initialise


def doublings(shape: ImageShape) -> int:
    """How often the smallest map (4 to 7 px high) is doubled to give the image.

    Raises:
        UserError: the size does not allow it.
    """
    count, height, width = 0, shape.height, shape.width
    while height % 2 == 0 and width % 2 == 0 and min(height, width) // 2 >= 4:
        height, width, count = height // 2, width // 2, count + 1
    if count == 0 or min(height, width) > 7:
        raise UserError(
            f"resolution: {shape.width}×{shape.height} px is not 4 to 7 px doubled several times; "
            "use 28, 32, 64, 128 or 256"
        )
    return count


def widths(table: DcganGenerator | DcganDiscriminator, count: int) -> list[int]:
    """The feature maps of the `count` hidden layers, from the image inwards.

    Raises:
        UserError: the table names another number of layers.
    """
    multipliers = table.multipliers or tuple(2**layer for layer in range(count))
    if len(multipliers) != count:
        raise UserError(
            f"multipliers: {len(multipliers)} layers named, this resolution has {count}"
        )
    maps = [table.width * multiplier for multiplier in multipliers]
    return [min(table.max_width, size) if table.max_width else size for size in maps]


def _norm(kind: str, maps: int) -> list[nn.Module]:
    if kind == "batch":
        return [nn.BatchNorm2d(maps)]
    if kind == "instance":
        return [nn.InstanceNorm2d(maps, affine=True)]
    return []


class DcganG(Generator):
    def __init__(self, table: DcganGenerator, shape: ImageShape) -> None:
        super().__init__()
        self.z_dim = table.z_dim
        steps = doublings(shape)
        hidden = steps + (table.last == "conv3")  # with conv3 the last doubling is hidden too
        *maps, deepest = widths(table, hidden)
        start = (shape.height >> steps, shape.width >> steps)
        layers = self._block(table, nn.ConvTranspose2d(
            table.z_dim, deepest, start, bias=table.norm == "none"
        ), deepest)  # fmt: skip
        below = deepest
        for above in reversed(maps):
            layers += self._block(table, _double(table, below, above), above)
            below = above
        if table.last == "conv3":
            layers.append(nn.Conv2d(below, shape.channels, 3, 1, 1))
        else:
            layers.append(_double(table, below, shape.channels))
        self.layers = nn.Sequential(*layers)
        self.sigmoid = table.output == "sigmoid"
        initialise(self, table.init)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:  # noqa: ARG002
        images = self.layers(latents[:, :, None, None])
        # 2σ(x) − 1: a sigmoid's [0, 1] as the trainer's [-1, 1]
        scaled: Tensor = images.sigmoid() * 2 - 1 if self.sigmoid else images.tanh()
        return scaled

    def _block(self, table: DcganGenerator, convolution: nn.Module, maps: int) -> list[nn.Module]:
        leaky = table.activation == "leaky"
        activation = nn.LeakyReLU(0.2, inplace=True) if leaky else nn.ReLU(inplace=True)
        return [convolution, *_norm(table.norm, maps), activation]


def _double(table: DcganGenerator, below: int, above: int) -> nn.Module:
    bias = table.norm == "none"
    if table.upsample == "transposed":
        return nn.ConvTranspose2d(below, above, 4, 2, 1, bias=bias)
    options = {} if table.upsample == "nearest" else {"align_corners": False}
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode=table.upsample, **options),
        nn.Conv2d(below, above, 3, 1, 1, bias=bias),
    )


class DcganD(Discriminator):
    def __init__(self, table: DcganDiscriminator, shape: ImageShape) -> None:
        super().__init__()
        steps = doublings(shape)
        layers: list[nn.Module] = []
        below = shape.channels
        for number, above in enumerate(widths(table, steps)):
            norm = _norm(table.norm, above) if number >= table.norm_from else []
            convolution = nn.Conv2d(below, above, 4, 2, 1, bias=table.bias)
            layers += [convolution, *norm, nn.LeakyReLU(0.2, inplace=True)]
            below = above
        self.hidden = nn.Sequential(*layers)
        stddev = bool(table.minibatch_stddev)
        self.stddev = MinibatchStddev(table.minibatch_stddev) if stddev else nn.Identity()
        end = (shape.height >> steps, shape.width >> steps)
        self.judge = nn.Conv2d(below + stddev, 1, end, bias=table.bias)
        initialise(self, table.init)
        if table.spectral:
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    spectral_norm(layer)

    def forward(self, images: Tensor, labels: Tensor) -> Verdict:  # noqa: ARG002
        features = self.hidden(images)
        return Verdict(self.judge(self.stddev(features)).flatten(), features)


def dcgan_generator(table: DcganGenerator, shape: ImageShape) -> Generator:
    return DcganG(table, shape)


def dcgan_discriminator(table: DcganDiscriminator, shape: ImageShape) -> Discriminator:
    return DcganD(table, shape)
