"""segmentation_models_pytorch's own model behind this project's interfaces, so that one config trains either.

Encoder, decoder, head and forward pass are smp's; its encoder is timm's feature network, given the weights that this
project's backbone loaded. Pipeline, loss, optimizer, loop and scoring are shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from backbones.contract import Backbone
from transfer.heads.segmentation import SegmentationOutput
from transfer.types import Size, Target


class SMPModel(nn.Module):
    """Takes a backbone as `transfer.heads.smp_decoder.smp_decoder` does, and runs its network as smp's encoder.

    Args:
        backbone: a `TimmBackbone` with out_strides=[2, 4, 8, 16, 32].
        num_classes: K.
        decoder: smp's name of the architecture.
    """

    def __init__(self, backbone: Backbone, num_classes: int, *, decoder: str = "unet") -> None:
        super().__init__()
        import segmentation_models_pytorch as smp

        network: Any = smp.create_model(
            decoder, encoder_name=f"tu-{backbone.name}", encoder_weights=None, classes=num_classes
        )
        body: Any = backbone.body
        network.encoder.model.load_state_dict(body.state_dict())  # strict: the same network
        backbone.body = network.encoder.model = body  # with the backbone's norm policy and frozen parts
        self.backbone, self.num_classes = backbone, num_classes
        self.decoder, self.head = network.decoder, network.segmentation_head
        self._encoder = [network.encoder]  # in a list: its parameters are the backbone's

    def forward(
        self, images: Tensor, sizes: Sequence[Size], targets: Sequence[Target] | None = None
    ) -> SegmentationOutput:
        """Logits at the images' own size, of images padded to a multiple of 32 as smp demands."""
        x = self.backbone.normalize(images)
        x = F.pad(x, (0, -x.shape[3] % 32, 0, -x.shape[2] % 32))
        logits = self.head(self.decoder(self._encoder[0](x)))
        return SegmentationOutput(logits, None, (int(x.shape[2]), int(x.shape[3])))
