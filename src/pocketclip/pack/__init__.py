"""Pictures and captions to shards."""

from pocketclip.pack.emoji import EmojiConfig, pack_emoji
from pocketclip.pack.emoji_split import SplitConfig

__all__ = ["EmojiConfig", "SplitConfig", "pack_emoji"]
