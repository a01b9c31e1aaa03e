"""A trained model for inference: its batch norms in the convolutions before them."""

from __future__ import annotations

import logging

from torch import nn

from backbones.errors import BackboneError
from backbones.fusion import fuse_conv_bn
from transfer.export.quiet import quiet

logger = logging.getLogger("trickstack")


def fused(model: nn.Module) -> nn.Module:
    """A copy with folded norms, or the model itself where it does not run on a small image or nothing can be folded.

    Args:
        model: in eval mode.
    """
    try:
        with quiet("backbones"):  # the names of all norms
            return fuse_conv_bn(model)
    except BackboneError as error:
        logger.info("batch norms are not folded: %s", error)
        return model
