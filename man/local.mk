dist_man_MANS += man/imgctl.1
dist_man_MANS += man/imgfs.1
dist_man_MANS += man/imgfs-formats.5
dist_man_MANS += man/imgfs-internals.7
dist_man_MANS += man/imgfs-tree.7
