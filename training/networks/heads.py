"""The last layers of a discriminator: from its features to its output."""

from __future__ import annotations

from torch import Tensor, nn

from training.image_shape import ImageShape
from training.networks.base import DiscriminatorOutput
from training.networks.layers import MinibatchStddev, spectral_norm
from training.options.architectures import is_semi_supervised
from training.options.base import DiscriminatorOptions


class Head(nn.Module):
    """Features (n, maps, *size) → a `DiscriminatorOutput`; each output is linear in all features.

    Besides the logit, or a vector of `outputs`, depending on the options: the projection of the
    label (Miyato & Koyama 2018, eq. 3) on the sum of the features over the map, which is added to
    the logit; logits of the label (AC-GAN); predictions of `codes` InfoGAN codes.

    A semi-supervised head has a logit l_k per label and one for "fake" that is always 0, because
    only differences matter (Salimans 2016, section 5): P(k) = exp(l_k) / (1 + Σ exp(l)), and the
    logit of "real" is log Σ exp(l).
    """

    def __init__(
        self,
        options: DiscriminatorOptions,
        shape: ImageShape,
        maps: int,
        size: tuple[int, int],
        codes: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        group = options.minibatch_stddev
        self.stddev = MinibatchStddev(group) if group else nn.Identity()
        self.joint = is_semi_supervised(options)
        answers = shape.classes if self.joint else getattr(options, "outputs", 1)
        self.output = nn.Conv2d(maps + bool(group), answers, size, bias=bias)
        self.projection = self.classifier = self.coder = None
        if options.condition == "projection":
            self.projection = nn.Embedding(shape.classes, maps)
            # as in the authors' code: PyTorch's N(0, 1) would dominate the discriminator's own
            # logit
            nn.init.xavier_uniform_(self.projection.weight)
            if options.spectral:
                spectral_norm(self.projection)
        if options.classifier:
            self.classifier = nn.Conv2d(maps, shape.classes, size)
        if codes:
            self.coder = nn.Conv2d(maps, codes, size)

    def forward(self, features: Tensor, labels: Tensor) -> DiscriminatorOutput:
        logits = self.output(self.stddev(features)).flatten(1)
        if self.joint:
            logits = logits.float()
            return DiscriminatorOutput(logits.logsumexp(dim=1), features, logits)
        if self.projection is not None:
            summed = features.sum(dim=(2, 3))
            product = self.projection(labels).to(summed.dtype) * summed
            logits = logits + product.sum(dim=1, keepdim=True)
        if logits.shape[1] == 1:
            logits = logits[:, 0]
        classes = None if self.classifier is None else self.classifier(features).flatten(1)
        codes = None if self.coder is None else self.coder(features).flatten(1)
        return DiscriminatorOutput(logits, features, classes, codes)
