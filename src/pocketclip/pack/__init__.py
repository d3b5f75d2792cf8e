"""Pictures and captions to shards."""

from pocketclip.pack.emoji import EmojiConfig, pack_emoji
from pocketclip.pack.emoji_split import SplitConfig
from pocketclip.pack.source import PackConfig, pack

__all__ = ["EmojiConfig", "PackConfig", "SplitConfig", "pack", "pack_emoji"]
