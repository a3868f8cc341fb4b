"""The wizard: seven pages over the engine. It decides nothing about privacy."""
