"""Methods side by side: rows, their runs, and the table, the images and the page made of them."""
