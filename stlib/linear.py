"""Ridge regression with its penalty chosen over held-out groups: the control that a deep model must beat."""

import numpy as np

PENALTIES = np.logspace(0, 6, 13)  # of standardised features


def fit_ridge(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Regress the labels of all genes on standardised features; return weight (D, G) and bias (G,).

    Parameters
    ----------
    features
        (N, D), mean 0 and deviation 1.
    labels
        (N, G).
    groups
        Patient (or section) of each row (N,). The penalty is the one with the lowest squared error on
        left-out groups; with a single group, on left-out rows.
    """
    from sklearn.linear_model import RidgeCV  # a second: only for who regresses
    from sklearn.model_selection import LeaveOneGroupOut

    several = len(np.unique(groups)) > 1
    splits = list(LeaveOneGroupOut().split(features, labels, groups)) if several else None
    model = RidgeCV(PENALTIES, cv=splits, scoring="neg_mean_squared_error" if several else None)
    model.fit(features.astype(np.float64), labels.astype(np.float64))
    return model.coef_.T.astype(np.float32), model.intercept_.astype(np.float32)
