# SPDX-License-Identifier: Apache-2.0
"""The one name under which everything is installed; `python -m nuq` is the console command.

In a checkout the packages are links to the folders beside this one; a wheel has them inside.
"""
