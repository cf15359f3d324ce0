# SPDX-License-Identifier: Apache-2.0
"""What else could be done about positional bias: removals that need no new backbone (arXiv 2603.16840, table 2).

    python -m evaluation.position.positional_probe --model teacher --removal rasa --removal-images data/micrographs \\
        --images data/micrographs --output results/rasa.json

Every command that measures one model takes `--removal`; its record says what was removed and what that costs. In the
order in which to read:

    blank_channels.py     the most positional channels are set to zero
    flips_and_turns.py    features are averaged over all flips and quarter turns of the image
    rasa.py               directions that tell row and column are removed, round by round
    blank_svd.py          the leading directions of a blank image's features are removed
    fitting.py            name and options -> `Removal`, fitted on images, its cost measured
"""
