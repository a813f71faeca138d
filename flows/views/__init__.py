"""What commands show of finished results: scores, comparisons, samples and banks."""
