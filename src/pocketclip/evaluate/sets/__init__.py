"""Sets of pictures to evaluate on, wherever they are: places are found, sets opened, nothing is unpickled."""

from pocketclip.evaluate.sets.item import Item, PictureSet
from pocketclip.evaluate.sets.place import Missing, Place, Wanted, locate, open_set

__all__ = ["Item", "Missing", "PictureSet", "Place", "Wanted", "locate", "open_set"]
