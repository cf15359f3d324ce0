# SPDX-License-Identifier: Apache-2.0
"""Does the segmenter win on data that nobody tuned it on? Many data sets; every choice is made on the others.

In the order in which to read:

    sources.py       public data sets: what to download, under which licence, and how its files are read
    synthetic.py     a made tomogram and made coatings, for what no public set has
    sets.py          the form in which the benchmark reads them
    prepare.py       command: downloads -> a folder for each data set, in one form
    pixels.py        which pixels simulated users draw on, which are tested, and the features of these alone
    contenders.py    what is compared: features and a classifier each
    programs.py      peers that are programs of their own, in an environment of their own (peers/)
    measure.py       confusion matrices, a file for each, so that a run can be stopped
    choice.py        means, ranks, and what one would have chosen without the data set that it is reported on
    figures.py       a panel for each data set, and tables
    __main__.py      command: all of it
    results/         what was measured
"""
