"""``python -m pyg_nsa`` is ``pyg-nsa``; for launchers that start Python modules, such as torchrun."""

from pyg_nsa.cli import main

if __name__ == "__main__":
    main(prog_name="pyg-nsa")
