# SPDX-License-Identifier: Apache-2.0
"""Teacher -> student -> distillation -> Hub folder."""
