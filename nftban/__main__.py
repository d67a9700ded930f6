"""`python -m nftban` is the command nftban."""

from nftban.cli.app import main

main()
