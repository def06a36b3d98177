"""recon_ad finds defects in industrial images by reconstruction, trained on good images only."""
