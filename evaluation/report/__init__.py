# SPDX-License-Identifier: Apache-2.0
"""Where the figures go: nothing in a table or card is typed in by hand.

In the order in which to read:

    records.py                result records: one JSON file per result
    card.py                   command: records -> table, model card and the Hub's metadata
    card_template.md          the card's text
    data_sources.json         where the data of records is from
    published_results.json    the paper's figures, for columns of their own
    publish.py                command: records and pictures into a model's folder, its card, and on demand to the Hub
    hub.py                    a folder to the Hub, and what arrived compared with what was sent
"""
