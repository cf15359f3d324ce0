# SPDX-License-Identifier: Apache-2.0
"""Does the segmenter win on data that nobody tuned it on? Many data sets; every choice is made on the others.

In the order in which to read:

    sources.py       public data sets: what to download, under which licence, and how its files are read
    synthetic.py     a made tomogram and made coatings, for what no public set has
    sets.py          the form in which the benchmark reads them
    prepare.py       command: downloads -> a folder for each data set, in one form
"""
