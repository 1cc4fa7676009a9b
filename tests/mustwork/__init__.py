"""What must work in a box of level L2: walls that break ordinary programs would soon be taken down."""
