"""Label schemes: the meaning of the ids in masks, as public datasets define them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORE_INDEX = 255  # label of pixels without a class


@dataclass(frozen=True)
class LabelScheme:
    """A mapping of mask ids to classes.

    Args:
        classes: Name of each class. Default: unknown, to be counted in the masks.
        ignore_ids: Ids of pixels without a class. Default: 255.
        ids: Id to class, if they differ. All other ids that are not ignored are faults.
        reduce_zero_label: Id 0 is ignored, and class k has the id k + 1. Default: False.
    """

    classes: tuple[str, ...] = ()
    ignore_ids: tuple[int, ...] = (IGNORE_INDEX,)
    ids: Mapping[int, int] | None = None
    reduce_zero_label: bool = False

    def lookup_table(self, num_classes: int) -> NDArray[np.int16]:
        """Return the class of every id.

        Args:
            num_classes: Number of classes.

        Returns:
            int16 (65536,): the class, IGNORE_INDEX if ignored, -1 for unknown ids.
        """
        offset = int(self.reduce_zero_label)
        ids = self.ids if self.ids is not None else {k + offset: k for k in range(num_classes)}
        table = np.full(65536, -1, dtype=np.int16)
        if self.reduce_zero_label:
            table[0] = IGNORE_INDEX
        for mask_id, label in ids.items():
            table[mask_id] = label
        table[list(self.ignore_ids)] = IGNORE_INDEX  # last, because it takes precedence
        return table


_CITYSCAPES = (
    "road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky person rider car truck "
    "bus train motorcycle bicycle"
)
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
_CAMVID = "sky building pole road pavement tree sign fence car pedestrian bicyclist"
_ADE20K = """wall,building,sky,floor,tree,ceiling,road,bed,windowpane,grass,cabinet,sidewalk,person,earth,door,table,
mountain,plant,curtain,chair,car,water,painting,sofa,shelf,house,sea,mirror,rug,field,armchair,seat,fence,desk,rock,
wardrobe,lamp,bathtub,railing,cushion,base,box,column,signboard,chest of drawers,counter,sand,sink,skyscraper,fireplace,
refrigerator,grandstand,path,stairs,runway,case,pool table,pillow,screen door,stairway,river,bridge,bookcase,blind,
coffee table,toilet,flower,book,hill,bench,countertop,stove,palm,kitchen island,computer,swivel chair,boat,bar,
arcade machine,hovel,bus,towel,light,truck,tower,chandelier,awning,streetlight,booth,television receiver,airplane,
dirt track,apparel,pole,land,bannister,escalator,ottoman,bottle,buffet,poster,stage,van,ship,fountain,conveyer belt,
canopy,washer,plaything,swimming pool,stool,barrel,basket,waterfall,tent,bag,minibike,cradle,oven,ball,food,step,tank,
trade name,microwave,pot,animal,bicycle,lake,dishwasher,screen,blanket,sculpture,hood,sconce,vase,traffic light,tray,
ashcan,fan,pier,crt screen,plate,monitor,bulletin board,shower,radiator,glass,clock,flag"""

LABEL_SCHEMES: Mapping[str, LabelScheme] = {
    "ade20k": LabelScheme(tuple(name.strip() for name in _ADE20K.replace("\n", "").split(",")), reduce_zero_label=True),
    "cityscapes": LabelScheme(
        tuple(name.replace("_", " ") for name in _CITYSCAPES.split()),
        ignore_ids=(*(k for k in range(34) if k not in _CITYSCAPES_IDS), IGNORE_INDEX),
        ids={mask_id: label for label, mask_id in enumerate(_CITYSCAPES_IDS)},
    ),
    "voc": LabelScheme(tuple(_VOC.split())),
    "camvid": LabelScheme(tuple(_CAMVID.split()), ignore_ids=(11, IGNORE_INDEX)),
    "plain": LabelScheme(),
}


def palette(num_classes: int) -> NDArray[np.uint8]:
    """Return the colors of PASCAL VOC, which spread the bits of the class over red, green and blue.

    Args:
        num_classes: Number of classes.

    Returns:
        uint8 (num_classes, 3).
    """
    indices = np.arange(num_classes, dtype=np.int64)
    colors = np.zeros((num_classes, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= ((indices >> (3 * bit + channel)) & 1) << (7 - bit)
    return colors.astype(np.uint8)
