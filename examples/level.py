"""The level of a box, measured before its first command, and what it was awarded for."""

from immure import Sandbox

with Sandbox() as box:
    evidence = box.evidence()

namespaces = [part for part in evidence.parts if part.part.endswith("namespace")]
others = [part for part in evidence.parts if part not in namespaces]

print(f"asked for {box.level.asked}, measured {evidence.awarded}")
for part in others:
    print(f"  {part.part:22} {'holds' if part.held else 'BROKEN'}  {part.observed}")
own = [part.part.removesuffix("namespace").strip("._").split(".")[-1] for part in namespaces if part.held]
print(f"  {'namespaces':22} {'holds' if len(own) == len(namespaces) else 'BROKEN'}  own {', '.join(own)}")
