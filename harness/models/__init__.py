"""Networks: the shipped ones, written plainly, and whatever a user brings.

Nothing heavy is imported here, so that they can be listed in no time.
"""

from __future__ import annotations

MODELS = {
    "residual-cnn": "harness.models.residual:build",
    "small-cnn": "harness.models.small_cnn:build",
    "resnet20": "harness.models.resnet:resnet20",
    "resnet56": "harness.models.resnet:resnet56",
    "vgg16": "harness.models.vgg:build",
    "mobilenetv2": "harness.models.mobilenet:build",
    "efficientnet-lite0": "harness.models.efficientnet_lite:build",
    "vit": "harness.models.vit:build",
    "cnn1d": "harness.models.cnn1d:build",
    "mlp": "harness.models.mlp:build",
}
"""Shipped models: name -> "module:function", imported on use.

Each function takes the shape of one sample and the number of outputs: classes, or values to
predict. The network is untrained.
"""

DESCRIPTIONS = {
    "residual-cnn": "small residual CNN of the digits task; images from 8x8; 1.0 M weights",
    "small-cnn": "four convolutions; images from 8x8; 0.24 M weights",
    "resnet20": "CIFAR ResNet, He et al. 2016; images from 8x8; 0.27 M weights",
    "resnet56": "CIFAR ResNet, He et al. 2016; images from 8x8; 0.9 M weights",
    "vgg16": "VGG-16 with batch norm, one linear head; images from 32x32; 14.7 M weights",
    "mobilenetv2": "Sandler et al. 2018; images from 16x16; 2.2 M weights",
    "efficientnet-lite0": "no squeeze-and-excitation, ReLU6; images from 32x32; 3.4 M weights; "
    "`efficientnet-lite0,pretrained` starts from ImageNet",
    "vit": "vision transformer, 6 blocks of width 128; images from 8x8; 1.2 M weights",
    "cnn1d": "four 1-D convolutions; signals [C, L] from 16 samples; 0.1 M weights",
    "mlp": "three layers of width 128; rows of a table [F]; 0.04 M weights",
}
"""One line for each: what it is, what it takes, its weights at three channels and ten outputs."""
