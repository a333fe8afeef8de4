# The same with a narrower neck and head, for all groups but `pass`: RetinaNet's own take four fifths of the work.
_base_ = 'bccd.py'
model = dict(
    neck=dict(out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128, stacked_convs=2))
