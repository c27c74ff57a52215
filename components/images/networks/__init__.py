"""Networks for images, and published weights for them."""
