"""Methods side by side: rows, their runs, and the table and the images made of them."""
