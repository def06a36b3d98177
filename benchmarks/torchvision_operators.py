"""Import this before peers that import torchvision: two operators that it lacks beside PyTorch's
CPU build are declared. Nothing that is compared here calls them."""

import torch

_LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
