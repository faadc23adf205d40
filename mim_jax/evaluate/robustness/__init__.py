"""Detection on corrupted images, with other holes, and on clinical images."""
