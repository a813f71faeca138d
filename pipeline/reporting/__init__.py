"""Reports, comparisons and differences as text, pages and pictures."""
