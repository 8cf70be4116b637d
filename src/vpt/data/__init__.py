"""Data as arrays: images and labels in folders, tables, masks or memory, their splits, and how they are decoded.

`loading` reads any source of classification as a `dataset.Dataset`, which `decoding` turns into arrays;
`masks.dataset` reads pairs of images and masks.
"""
