"""Inception v3 from 8-bit images to its 2048 features and its logits."""

import torch
from torch import Tensor, nn

from models.inception._blocks import Conv, InceptionA, InceptionB, InceptionC, InceptionD, InceptionE, halve
from models.inception._resize import resize_bilinear

SIDE = 299  # pixels that the network looks at
FEATURES = 2048
LOGITS = 1008  # 1000 classes, a background class and seven that are not used


class InceptionV3(nn.Module):
    """Inception v3 (Szegedy et al. 2016, arXiv 1512.00567), as in TensorFlow's ``inception-2015-12-05`` graph.

    This graph, not the paper's network, is the one that the Inception Score (Salimans et al. 2016, arXiv 1606.03498)
    and the Frechet Inception Distance (Heusel et al. 2017, arXiv 1706.08500) are defined by. It differs: average pools
    leave their padding out, the last block pools by the maximum, there are 1008 logits, and the images are resized
    inside the graph (:func:`~models.inception.resize_bilinear`). Parameters have the names and shapes of the published
    conversion to PyTorch, ``pt_inception-2015-12-05-6726825d.pth``. Batch norm is meant to run on its stored
    statistics: call ``eval()`` first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = Conv(64, 80)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, padded=False)
        self.Mixed_5b = InceptionA(192, pool_features=32)
        self.Mixed_5c = InceptionA(256, pool_features=64)
        self.Mixed_5d = InceptionA(288, pool_features=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, width=128)
        self.Mixed_6c = InceptionC(768, width=160)
        self.Mixed_6d = InceptionC(768, width=160)
        self.Mixed_6e = InceptionC(768, width=192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280, pool="average")
        self.Mixed_7c = InceptionE(2048, pool="max")
        self.fc = nn.Linear(FEATURES, LOGITS)

    def forward(self, images: Tensor) -> Tensor:
        """The 2048 features (``pool3``) of images.

        Args:
            images: (B, 3, H, W) uint8, of any size.

        Returns:
            (B, 2048) in the dtype of the weights, not negative.

        Raises:
            ValueError: if ``images`` are not uint8 or have not three channels.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            given = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"images must be uint8 (B, 3, H, W), got {given}; round them to 8 bits first")
        x = resize_bilinear(images.to(self.fc.weight.dtype), SIDE)
        x = (x - 128) / 128  # (B, 3, 299, 299)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (B, 64, 147, 147)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(halve(x)))  # (B, 192, 71, 71)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(halve(x))))  # (B, 288, 35, 35)
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))  # (B, 768, 17, 17)
        x = self.Mixed_6e(self.Mixed_6d(x))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B, 2048, 8, 8)
        return x.mean(dim=(2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """(B, 2048) features to (B, 1008) logits without the bias, which the Inception Score has always left out.

        The code published with it multiplies ``pool3`` by the weights of the last layer and then takes the softmax.
        """
        return features @ self.fc.weight.T
