"""Six words that two people can compare by reading them aloud: 48 bits of a digest."""

from __future__ import annotations

from typing import Final

_TEXT: Final = """
    acid acorn actor agent alarm album alley amber anchor angel apple apron arena armor arrow aspen atlas attic
    award bacon badge badger bagel baker bamboo banjo barn basil basin beach beads beard beaver berry bike bingo
    birch bison blade blaze bloom board boat bonus boot bottle bowl brass bread brick bridge broom brush bucket
    buffalo cabin cable cactus camel canary candle canoe canyon carbon cargo carpet castle cedar cello chalk cherry
    chess chief cider cinema circle citrus clay cliff clock cloud clover coast cobra cocoa comet copper coral cotton
    cradle crane crater crown crystal curry daisy delta denim desert diamond dolphin donkey dragon drum dune eagle
    earth echo elbow ember engine falcon feather fennel ferry fiddle fig flame flute forest fossil fox galaxy garden
    garlic ginger glacier globe goat grape gravel guitar hammer harbor hazel helmet heron hippo hockey honey hotel
    igloo indigo island ivory jacket jaguar jasmine jungle kayak kettle kiwi koala ladder lagoon lantern lemon lily
    linen lizard lobster lotus lunar magnet mango maple marble meadow melon mint mirror monkey moon mosaic muffin
    nectar needle nest noodle nutmeg oasis ocean olive onion opal orbit orchid otter oyster paddle panda paper
    parrot peach pearl pebble pepper piano pigeon pilot pine planet plum pony potato prairie pumpkin puzzle quail
    quartz rabbit radar radio raven ribbon river robin rocket rose ruby saddle salmon sand satin scarf shell silk
    silver sketch sparrow spice spruce squid stable storm sugar sunset swan tango tiger timber toast tomato topaz
    tulip tunnel turtle velvet violet violin walnut whale willow winter yacht zebra
"""
WORDS: Final = tuple(_TEXT.split())
"""256 short words; the order is part of what two releases must agree on, so it never changes."""


def render_words(digest_hex: str) -> str:
    """The first six bytes of a hex digest, a word each."""
    return " ".join(WORDS[byte] for byte in bytes.fromhex(digest_hex)[:6])
