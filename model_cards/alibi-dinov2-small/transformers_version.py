# SPDX-License-Identifier: Apache-2.0
"""Says which Transformers is needed, before an older one fails on a name that it does not have."""

from transformers.utils.versions import require_version

MINIMUM_TRANSFORMERS = "5.18.0"  # DINOv2's layers take an attention mask, and have today's names, from here on

require_version(
    f"transformers>={MINIMUM_TRANSFORMERS}",
    f"ALiBi-DINOv2 needs Transformers {MINIMUM_TRANSFORMERS} or newer: pip install --upgrade 'transformers>="
    f"{MINIMUM_TRANSFORMERS}'",
)
