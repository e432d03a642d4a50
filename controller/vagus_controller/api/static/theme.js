// Before the first paint: the appearance that was chosen on this device. "auto" is the system's.
try {
  const theme = localStorage.getItem('vagus-theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // No storage here: the system's.
}
