"""What can be said to the local default, `rxstage.providers.LocalProvider`, as a grammar."""

from __future__ import annotations

from typing import Final

__all__ = ["ASSISTANT"]

_NAMES: Final = """
    Ada Alan Alex Alice Andrew Anna Arthur Barbara Ben Bob Carol Charles Charlie Chris Daniel David Diana Edward
    Elizabeth Emily Emma Eric Eve Frank George Grace Hannah Harry Helen Henry Jack James Jane Jennifer Jessica Jim
    John Julia Karen Kate Kevin Laura Linda Lisa Lucy Maria Mark Martin Mary Max Michael Mike Nick Oliver Olivia
    Oscar Patricia Paul Peter Richard Robert Rose Sam Sarah Simon Sophie Steve Susan Thomas Tom Victor William
"""

# The weights say how likely each is. Numbers end at twenty, as those do that the provider knows: of a machine's voice,
# "thirteen" and "thirty" can hardly be told apart.
ASSISTANT: Final = f"""#JSGF V1.0;
grammar assistant;
public <said> = /8/ <sum> | /8/ <name> | /8/ <talk> | /4/ <memory>;
<sum> = (what is | /0.3/ what's) <number> <operation> <number>;
<operation> = /4/ times | /4/ plus | /3/ minus | /2/ divided by | /0.3/ over;
<number> = /3/ <digit> | <teen>;
<digit> = /0.3/ zero | one | two | three | four | five | six | seven | eight | nine | ten;
<teen> = eleven | twelve | thirteen | fourteen | fifteen | sixteen | seventeen | eighteen | nineteen | twenty;
<name> = (/6/ my name is | /1/ call me | /1/ I am) <who> | /4/ (what is | /0.3/ what's) my name | /2/ who am I
    | do you (know | remember) my name;
<who> = {" | ".join(_NAMES.split())};
<talk> = /3/ hello | hi | hey | good (morning | evening | day) | /2/ help | what can you do | who are you
    | show Markdown | thanks | thank you | goodbye | bye;
<memory> = what did (/8/ I | we) say | how many messages;
"""
