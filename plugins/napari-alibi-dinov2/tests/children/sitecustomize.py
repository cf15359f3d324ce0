# SPDX-License-Identifier: Apache-2.0
"""What Python does first in processes that tests begin."""

from torchvision_operators import declare_unused_operators

declare_unused_operators()
