# SPDX-License-Identifier: Apache-2.0
"""On the board: driver, measurements, and a board that needs no board.

Runs on Python 3.10 and later with numpy and pynq (3.0.1, 3.1 or 4). What only a PC needs is
bundle, emulate and hwh.
"""

__version__ = "0.1.0"
