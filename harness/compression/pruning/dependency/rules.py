"""What each operation does to channels: a rule per operator of torch's ATen library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.compression.pruning.dependency.combining import channel_norm, feature_norm, pointwise
from harness.compression.pruning.dependency.convolving import convolution
from harness.compression.pruning.dependency.moving import VIEWS, concatenated, moved
from harness.compression.pruning.dependency.products import affine, attention, matmul
from harness.compression.pruning.dependency.reducing import (
    gated,
    looked_up,
    made_new,
    normalised_over,
    reduced,
    restrided,
    spatial,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.compression.pruning.dependency.channels import Labels

_MOVED = (
    "permute transpose t expand slice select split split_with_sizes "
    "unsafe_split unsafe_split_with_sizes unbind unsqueeze squeeze clone alias detach contiguous "
    "pixel_shuffle pixel_unshuffle channel_shuffle roll flip repeat unfold "
    "index_select movedim narrow lift_fresh native_channel_shuffle"
)
_SPATIAL = (
    "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d "
    "avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d "
    "adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d upsample_nearest2d "
    "upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d upsample_linear1d "
    "upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d constant_pad_nd mkldnn_max_pool2d"
)
_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_attention_math"
)
_CHANNEL_NORMS = (
    "native_batch_norm cudnn_batch_norm _native_batch_norm_legit "
    "_native_batch_norm_legit_no_training native_group_norm"
)
_POINTWISE = (  # not all operators that work element by element are tagged as such
    "_prelu_kernel copy hardswish hardtanh hardsigmoid elu leaky_relu silu mish gelu relu relu6 "
    "celu selu softplus threshold log_sigmoid_forward _to_copy clamp masked_fill where lerp rsub "
    "zeros_like ones_like full_like empty_like rand_like randn_like"
)
RULES: dict[str, Callable[..., Sequence[Labels]]] = {
    **dict.fromkeys((*VIEWS, *_MOVED.split()), moved),
    **dict.fromkeys(_SPATIAL.split(), spatial),
    **dict.fromkeys(("cat", "stack"), concatenated),
    **dict.fromkeys(("mm", "bmm"), matmul),
    **dict.fromkeys(("addmm", "baddbmm"), affine),
    **dict.fromkeys(_ATTENTION.split(), attention),
    "convolution": convolution,
    **dict.fromkeys(_CHANNEL_NORMS.split(), channel_norm),
    **dict.fromkeys(("native_layer_norm", "_fused_rms_norm"), feature_norm),
    **dict.fromkeys(("_softmax", "_log_softmax", "cumsum"), normalised_over),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm"), reduced),
    **dict.fromkeys(("new_zeros", "new_ones", "new_empty", "new_full"), made_new),
    "as_strided": restrided,
    "glu": gated,
    "embedding": looked_up,
    **dict.fromkeys(_POINTWISE.split(), pointwise),
}
"""By the operator's name; in-place ones without their underscore."""
