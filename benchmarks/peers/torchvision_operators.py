"""Declarations of two torchvision operators, to be imported before peers that use torchvision.

With PyTorch's CPU build torchvision lacks them; with a CUDA build it has them. Nothing that is
compared calls them.
"""

import torch

if torch.version.cuda is None:
    _LIBRARY = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
