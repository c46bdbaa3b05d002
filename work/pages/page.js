const pressed = new Set(), cards = document.querySelectorAll(".card")
for (const button of document.querySelectorAll("button[data-flag]"))
  button.onclick = () => {
    const flag = button.dataset.flag
    pressed.delete(flag) || pressed.add(flag)
    button.setAttribute("aria-pressed", pressed.has(flag))
    for (const card of cards)
      card.hidden = pressed.size && !card.dataset.flags.split("|").some(f => pressed.has(f))
  }
for (const button of document.querySelectorAll("button[data-facts]"))
  button.onclick = () => {
    const open = button.getAttribute("aria-pressed") == "false"
    button.setAttribute("aria-pressed", open)
    for (const facts of document.querySelectorAll(".card details")) facts.open = open
  }
