// Has the search of the audit trail speak the zone of the viewer, as the times
// below it do; without this module it is that of the server.

const form = document.getElementById('search');
const moments = [...form.querySelectorAll('input[type="datetime-local"]')];

for (const input of moments) {
  if (!input.dataset.at) continue;
  const at = new Date(input.dataset.at);
  input.value = new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

form.addEventListener('formdata', ({ formData }) => {
  for (const { name, value } of moments) {
    const at = new Date(value); // without a zone: the viewer's
    if (value !== '' && !Number.isNaN(at.getTime())) formData.set(name, at.toISOString());
  }
});
