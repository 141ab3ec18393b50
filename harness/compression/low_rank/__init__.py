"""Low rank: layers factorised into two thinner ones."""
